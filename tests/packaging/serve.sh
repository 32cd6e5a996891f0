# How the units start things: same users, groups and capabilities. The worker's user is one that nobody else has, as
# systemd's DynamicUser is. To be sourced.
setup() {
    mkdir -p /srv/shop/static
    echo "a file" > /srv/shop/static/a.txt
    cat > /srv/shop/app.py <<'END'
from m2gate import App, EventStream

app = App()


@app.get("/")
def index(request):
    return f"hello {request.scheme} {request.client}"


@app.post("/size")
def size(request):
    return str(sum(map(len, request.stream)))


@app.websocket("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)
END
    cat > /etc/m2gate/sites-available/shop.toml <<'END'
hosts = ["shop.test"]
listen = ["127.0.0.1:80", "127.0.0.1:443 tls"]
[handler.shop]
target = "/srv/shop/app.py"
workers = 2
[[route]]
path = "/"
handler = "shop"
[[route]]
path = "/static/"
dir = "/srv/shop/static/"
END
    cd /etc/m2gate/certs
    [ -e shop.test.key ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -keyout shop.test.key -out shop.test.crt -subj /CN=shop.test -addext subjectAltName=DNS:shop.test 2>/dev/null
    chgrp m2gate-www shop.test.*
    chmod 640 shop.test.key
    m2gate site enable shop
    m2gate config check
    m2gate config apply
}
as() { # USER GROUP GROUPS CAPABILITY COMMAND...
    setpriv --reuid="$1" --regid="$2" --groups="$3" --inh-caps="-all${4:+,+$4}" --ambient-caps="-all${4:+,+$4}" \
        --bounding-set="-all${4:+,+$4}" --no-new-privs "${@:5}"
}
start() {
    umask 0007
    for id in local-80 local-443; do
        (as m2gate-www m2gate-www m2gate-www net_bind_service mongrel2 /var/lib/m2gate/config.sqlite $id \
            > /tmp/$id.out 2>&1 &)
    done
    install -d -o m2gate-www -g m2gate -m 2770 /run/m2gate/gateway
    (as m2gate-www m2gate m2gate kill m2gate gateway > /tmp/gateway.out 2>&1 &)
    (as 12345 12345 "$(getent group m2gate | cut -d: -f3)" "" m2gate worker shop > /tmp/worker.out 2>&1 &)
    curl -sS -f -o /dev/null --retry 60 --retry-delay 1 --retry-all-errors -H "Host: shop.test" http://127.0.0.1/
}
secure() { curl -sS --max-time 10 --resolve shop.test:443:127.0.0.1 --cacert /etc/m2gate/certs/shop.test.crt "$@"; }
