# A tenant on a plan, and a key: it may read orders, at the site in Berlin.
latchgate plans create basic --capability export > log 2>&1
latchgate tenants create acme --plan basic > log 2>&1
id=$(latchgate keys create --tenant acme --owner ada --permission orders.read --resource 'sites/berlin/*' --key-file acme.key 2> log)
key=$(cat acme.key)
# Allowed: the upstream is told who calls, not the key, and nothing that the client says of itself.
curl -s -w '%{http_code}\n' -H "x-api-key: $key" -H 'x-latchgate-tenant: globex' $API/orders
curl -s -w '%{http_code}\n' -H "authorization: Bearer $key" $API/orders
curl -s -w '%{http_code}\n' -H 'x-latchgate-tenant: globex' $API/healthz
# Denied: what was presented is no key, or no whole one, or two.
curl -s -w ' %{http_code}\n' $API/orders
curl -s -w ' %{http_code}\n' -H 'x-api-key: nonsense' $API/orders
curl -s -w ' %{http_code}\n' -H "x-api-key: $id" $API/orders
curl -s -w ' %{http_code}\n' -H "x-api-key: $id.wrong" $API/orders
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" -H 'x-api-key: nonsense' $API/orders
# Denied: the key is not for this route.
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/admin
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/import
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/globex
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/sites/paris
# Denied: the key is not for this address.
latchgate keys update $id --ip 192.0.2.0/24 > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate keys update $id --no-ip-allowlist > log 2>&1
# Denied: the key, or all of its tenant's, may not be used.
latchgate keys disable $id > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate keys enable $id > log 2>&1
latchgate keys expire $id > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate keys update $id --clear expire-time > log 2>&1
latchgate tenants disable acme > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate tenants enable acme > log 2>&1
# A rate limit and a quota: the headers say where they stand.
latchgate keys update $id --key-limit requests=2/600s > log 2>&1
curl -s -o body -D - -H "x-api-key: $key" $API/orders | grep -E 'HTTP|limit|retry'
curl -s -o body -D - -H "x-api-key: $key" $API/orders | grep -E 'HTTP|limit|retry'
curl -s -o body -D - -H "x-api-key: $key" $API/orders | grep -E 'HTTP|limit|retry'
cat body; echo
latchgate keys update $id --key-limit total=0/lifetime > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate keys update $id --clear key-limit > log 2>&1
# A revocation takes effect between two requests.
curl -s -w '%{http_code}\n' -H "x-api-key: $key" $API/orders
latchgate keys revoke $id --yes > log 2>&1
curl -s -w ' %{http_code}\n' -H "x-api-key: $key" $API/orders
