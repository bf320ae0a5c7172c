"""What can be tested of the benches without measuring anything."""
