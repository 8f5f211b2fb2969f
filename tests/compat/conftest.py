from tests.distributions import only, row

__all__ = ["only", "row"]
