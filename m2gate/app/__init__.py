"""What handler authors import: App, Request, Response, streams, WebSockets, channels, TestClient."""
