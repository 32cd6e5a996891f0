"""Send three messages to wss://shop.test/echo; print what comes back."""

import asyncio
import ssl

import websockets


async def main() -> None:
    context = ssl.create_default_context(cafile="/etc/m2gate/certs/shop.test.crt")
    async with websockets.connect(
        "wss://shop.test/echo", host="127.0.0.1", port=443, ssl=context, server_hostname="shop.test"
    ) as client:
        for number in range(3):
            await client.send(f"message {number}")
            print(await client.recv())


asyncio.run(main())
