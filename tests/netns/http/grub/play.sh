#!/bin/bash
# Plays GRUB 2.06: runs its first script as bash, with GRUB's commands as functions, until it has paused often enough. The firmware
# refuses each kernel. Prints each request as `PROTOCOL NAME`, each pause as `sleep N`, and what GRUB shows.
#
# play.sh HTTP PAUSES MAC SERVER: HTTP is `y` if this GRUB has its module for HTTP.
http=$1 pauses=$2 net_default_mac=$3 server=$4
lockdown=y grub_cpu=x86_64 grub_platform=efi
file=$(mktemp)
trap 'rm -f "$file"' EXIT

# A path such as `(tftp,10.5.0.1)/grub/grub.cfg` into $file. Without the module GRUB sends no request.
fetch() {
    local protocol=${1#(} host=${1#*,}
    protocol=${protocol%%,*} host=${host%%)*}
    if [ "$protocol" = http ] && [ "$http" != y ]; then return 1; fi
    echo "$protocol ${1#*)}"
    curl -sS -f -m 60 --globoff -o "$file" "$protocol://$host${1#*)}"
}
set() { declare -g "$1"; }
source() { fetch "$1" && eval "$(cat "$file")"; }
# Observed with Debian's grubnetx64.efi.signed 2.06-13+deb12u2: `insmod` succeeds for a module that does not exist.
insmod() { echo "error: file '$1.mod' not found."; }
linux() {
    fetch "$1" && echo 'error: bad shim signature.'
    return 1
}
initrd() { echo 'error: you need to load the kernel first.'; return 1; }
boot() { echo 'error: you need to load the kernel first.'; return 1; }
reboot() { echo reboot; exit 1; }
sleep() {
    echo "sleep $1"
    pauses=$((pauses - 1))
    if [ "$pauses" = 0 ]; then exit 0; fi
}

curl -sS -f -m 60 -o "$file" "tftp://$server/grub/x86_64-efi/grub.cfg" || exit 1
eval "$(cat "$file")"
