#!/bin/sh
# PID 1 of a boot by `rackstrap node boot --once rescue` or `shell`. Nothing of the image is started but these shells and ssh, and no
# disk is mounted. Everything that is written here is in RAM.
ssh=yes
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM="${TERM:-linux}"
cd "$HOME" 2>/dev/null || cd /
umask 022

# `rescue console NAME` is the leader of a session on one console: a shell, again whenever it ends. The handler keeps this program when Ctrl-C
# is typed between two shells; the shells have none.
if [ "$1" = console ]; then
    trap : INT QUIT HUP
    # Shells read it from the environment unless they are login shells.
    export PS1="root@$(hostname) (in RAM)# "
    while :; do
        {
            echo
            echo "rackstrap: a shell in RAM on $(hostname). The disks are untouched. \`reboot -f\` ends it."
        } >"/dev/$2" 2>/dev/null
        sh <"/dev/$2" >"/dev/$2" 2>&1
        sleep 1
    done
fi

mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts 2>/dev/null
[ -c /dev/pts/ptmx ] && [ ! -c /dev/ptmx ] && ln -s pts/ptmx /dev/ptmx
hostname -F /etc/hostname 2>/dev/null
ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null

say() {
    echo "rackstrap: $*"
    echo "rackstrap: $*" >/dev/kmsg 2>/dev/null
}

start_ssh() {
    if [ -x /usr/sbin/sshd ]; then
        # Debian's directory for privilege separation; systemd makes it otherwise.
        mkdir -p /run/sshd && chmod 755 /run/sshd
        # Options on the command line win over the image's configuration: root's keys open the door, and nothing else.
        /usr/sbin/sshd -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no \
            -o KbdInteractiveAuthentication=no -o PubkeyAuthentication=yes -o AllowUsers=root &&
            say "ssh is ready for root's keys" || say "sshd did not start: use the console"
    elif [ -x /usr/sbin/dropbear ]; then
        mkdir -p /etc/dropbear
        # -R makes host keys that are missing, -s refuses passwords.
        /usr/sbin/dropbear -R -s && say "ssh is ready for root's keys" || say "dropbear did not start: use the console"
    else
        say "the image has neither sshd nor dropbear: use the console"
    fi
}

# Becomes the program for one console. With a terminal of its own the shell there has job control, and Ctrl-C does not reach PID 1. The agent
# reports that the node is up as soon as a child of PID 1 is a shell on a terminal.
serve() {
    if command -v setsid >/dev/null 2>&1; then
        exec setsid -c sh "$script" console "$1" <"/dev/$1" >"/dev/$1" 2>&1
    fi
    exec sh "$script" console "$1" <"/dev/$1" >"/dev/$1" 2>&1
}

[ "$ssh" = no ] || start_ssh

read -r active </sys/class/tty/console/active || active=console
script=$0
all=
for console in $active; do
    # tty0 is whichever screen is shown, and can be no shell's terminal.
    [ "$console" = tty0 ] && console=tty1
    [ -c "/dev/$console" ] && all="${all}serve $console | "
done

# PID 1 must not end. While it waits it takes in what others leave behind. The programs are parts of a pipeline, because a shell makes what it
# starts by & ignore Ctrl-C for ever.
while :; do
    eval "${all}cat >/dev/null"
    sleep 1
done
