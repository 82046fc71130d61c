"""What slimfed brings along: a generated text set and two small pre-trained models, so that nothing needs a hub."""
