"""How many cases a reader gets: few in `make test`, the same ones every time; 10,000 new ones in `make fuzz`."""

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

settings.register_profile("short", max_examples=40, derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile("fuzz", max_examples=10_000, deadline=None, suppress_health_check=SLOW)
settings.load_profile("short")
