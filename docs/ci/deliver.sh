#!/bin/sh
# Delivers a build to the first environment: deliver.sh APP ENVIRONMENT VERSION
#
# Needs curl 7.76 and openssl, and from the environment
#   PROMOTE_URL          the bot's address, https://bot.example.com
#   HOOK_NAME, HOOK_KEY  the caller's name under hooks of promote.yaml, and its key
#   DELIVERY             the build server's own name for this run: the same one counts once
#   DIGEST, REASON, LINK which build it is (sha256:…), why, and the address of the run; each may be missing
set -eu
app=$1 environment=$2 version=$3

# A value of JSON: one line, and nothing in it that ends the text.
text() {
  printf '"%s"' "$(printf %s "$1" | tr '\n\r\t' '   ' | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g')"
}

body="{\"app\":$(text "$app"),\"environment\":$(text "$environment"),\"version\":$(text "$version")"
[ -z "${DIGEST:-}" ] || body="$body,\"digest\":$(text "$DIGEST")"
[ -z "${REASON:-}" ] || body="$body,\"reason\":$(text "$REASON")"
[ -z "${LINK:-}" ] || body="$body,\"link\":$(text "$LINK")"
body="$body}"

# One pipeline may deliver several apps. What tells two runs apart stands at the end, so the end is kept.
delivery=$(printf %s "deliver-$app-$environment-${DELIVERY:?}" | tr -c 'A-Za-z0-9._-' - | tail -c 128)
at=$(date +%s)
signature=$(printf %s "v1:$HOOK_NAME:$at:$delivery:POST:/hooks/v1/images:$body" |
  openssl dgst -sha256 -hmac "$HOOK_KEY" -r | cut -d' ' -f1)

printf %s "$body" | curl --silent --show-error --fail-with-body --retry 6 --retry-max-time 120 \
  --max-time 20 --retry-connrefused \
  -H 'Content-Type: application/json' -H "Promote-Identity: $HOOK_NAME" -H "Promote-Timestamp: $at" \
  -H "Promote-Delivery: $delivery" -H "Promote-Signature: v1=$signature" \
  --data-binary @- "$PROMOTE_URL/hooks/v1/images"
echo
