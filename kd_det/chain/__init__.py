"""A student taught by one teacher after the other: ordinary runs, each from the weights of the one before."""
from .links import Link, links_of
from .running import run_chain

__all__ = ['Link', 'links_of', 'run_chain']
