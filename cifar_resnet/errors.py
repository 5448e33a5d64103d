"""What is raised for wrong input; trouble with files stays `OSError`."""


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line: what, where, what to do.

    The command line prints the message without a traceback and exits with code 2.

    >>> raise InputError("recipe 'nots' is unknown; choose one of: notes, smoke")
    Traceback (most recent call last):
    cifar_resnet.errors.InputError: recipe 'nots' is unknown; choose one of: notes, smoke
    """
