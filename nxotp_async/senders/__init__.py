"""Sending by several numbers and accounts."""

from .files import read_senders
from .health import StepBack
from .pool import SenderPool, SenderState
from .sender import Sender, SenderAccount

__all__ = ["Sender", "SenderAccount", "SenderPool", "SenderState", "StepBack", "read_senders"]
