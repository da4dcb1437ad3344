"""`tapewire compare`: price encoders against each other by measurement."""
