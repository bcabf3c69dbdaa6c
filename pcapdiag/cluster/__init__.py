"""Several vantage points to one cluster: the first floor that knows LVS."""
