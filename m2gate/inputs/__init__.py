"""What a direct worker and a gateway both serve: publish inputs, the status socket, metrics."""
