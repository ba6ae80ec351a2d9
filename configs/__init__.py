"""Machine configurations, one YAML file each."""
