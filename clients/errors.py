"""The errors that slimfed raises for its users."""


class SlimfedError(Exception):
    """The base of all errors of slimfed. Its text can be shown to the user as it is."""


class InputError(SlimfedError, ValueError):
    """A job, model, data set or profile that cannot be used: the text names the field, the value and what is valid.

    The command line prints it as one line and exits with code 2.
    """
