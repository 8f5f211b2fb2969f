from tests.distributions import only

__all__ = ["only"]
