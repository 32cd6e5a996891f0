"""Twenty clients with connections of their own ask all the time while a command runs; prints the answers' counts."""

import http.client
import subprocess
import sys
import threading
from collections import Counter

CLIENTS = 20
counts: Counter[str] = Counter()
lock = threading.Lock()
is_over = threading.Event()


def ask() -> None:
    mine: Counter[str] = Counter()
    client = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
    while not is_over.is_set():
        try:
            client.request("GET", "/version", headers={"Host": "shop.test"})
            answer = client.getresponse()
            answer.read()
            mine[str(answer.status)] += 1
        except (OSError, http.client.HTTPException) as error:
            mine[type(error).__name__] += 1
            client.close()
    with lock:
        counts.update(mine)


threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
for thread in threads:
    thread.start()
status = subprocess.run(sys.argv[1:], check=False).returncode
is_over.set()
for thread in threads:
    thread.join()
print(f"asked {sum(counts.values())}, {dict(counts)}")
sys.exit(status)
