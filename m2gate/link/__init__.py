"""ZeroMQ on gevent's loop: servers, connections and what is under way on them."""
