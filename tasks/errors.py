"""The one exception that is meant for the person at the keyboard."""


class UserError(ValueError):
    """A mistake the user can mend: one sentence that names the file, the setting and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
