"""OpenTelemetry, by its API only."""
