"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """A job, model, data set or profile that cannot be used: the text names the field, the value and what is valid.

    The command line prints it as one line and exits with code 2.
    """
