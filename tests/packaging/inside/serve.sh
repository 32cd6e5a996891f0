# To be sourced within the chroot: a site with every kind of handler, served as the units say.
# setup: the site shop, applied; its programs run.
setup() {
    mkdir -p /srv/shop/static /run/systemd/system
    echo "a file" > /srv/shop/static/a.txt
    cat > /srv/shop/app.py <<'END'
import gevent

from m2gate import App, EventStream

app = App()
VERSION = "first"


@app.get("/")
def index(request):
    return f"hello {request.scheme} {request.client}"


@app.get("/version")
def version(request):
    return VERSION


@app.get("/slow")
def slow(request):
    gevent.sleep(0.2)
    return "slow"


@app.post("/size")
def size(request):
    return str(sum(map(len, request.stream)))


@app.get("/events")
def events(request):
    def ticks():
        for number in range(5):
            yield str(number)
            gevent.sleep(0.2)

    return EventStream(ticks())


@app.websocket("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)
END
    cat > /etc/m2gate/sites-available/shop.toml <<'END'
hosts = ["shop.test", "*.wild.test"]
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
    pair shop.test shop.test
    pair _.wild.test '*.wild.test'
    m2gate site enable shop > /dev/null
    if [ -e /var/lib/m2gate/config.sqlite ]; then start; else m2gate config apply > /dev/null; fi
    curl -sS -f -o /dev/null --retry 20 --retry-delay 1 --retry-all-errors -H "Host: shop.test" http://127.0.0.1/
}

# pair FILE NAME: a certificate of its own, unless there is one.
pair() {
    [ -e /etc/m2gate/certs/$1.key ] || make_pair "$1" "$2"
}

make_pair() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
        -keyout /tmp/new.key -out /tmp/new.crt -subj "/CN=$2" -addext "subjectAltName=DNS:$2" 2> /dev/null
    install -g m2gate-www -m 0640 /tmp/new.key /etc/m2gate/certs/$1.key
    install -g m2gate-www -m 0640 /tmp/new.crt /etc/m2gate/certs/$1.crt
}

UNITS="m2gate-mongrel2@local-80 m2gate-mongrel2@local-443 m2gate-gateway m2gate-worker@shop"
start() {
    rm -rf /tmp/units
    systemctl start $UNITS
}

main_pid() { cat "/tmp/units/$1.service.pid"; }

# as_handler COMMAND...: with the rights of a worker: a user that nobody else has, in group m2gate.
as_handler() {
    setpriv --reuid=12345 --regid=12345 --groups="$(getent group m2gate | cut -d: -f3)" --no-new-privs "$@"
}
secure() { curl -sS --max-time 10 --resolve shop.test:443:127.0.0.1 --cacert /etc/m2gate/certs/shop.test.crt "$@"; }

# shown NAME: the common name of the certificate that a client asking for NAME is shown; "" asks for none.
shown() {
    local name="-servername $1"
    [ -n "$1" ] || name=-noservername
    # shellcheck disable=SC2086
    openssl s_client -connect 127.0.0.1:443 $name < /dev/null 2> /dev/null | openssl x509 -noout -subject \
        | sed 's/.*CN *= *//'
}

# load COMMAND...: 20 clients ask all the time while the command runs; prints how many got which answer.
load() { python3 /tests/load.py "$@"; }
