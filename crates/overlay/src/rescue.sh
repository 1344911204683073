#!/bin/sh
# PID 1 of a boot by `rackstrap node boot --once rescue` or `shell`. Nothing of the image is started but these shells and ssh, and no
# disk is mounted. Everything that is written here is in RAM.
ssh=yes
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root TERM="${TERM:-linux}"
cd "$HOME" 2>/dev/null || cd /
umask 022

mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts 2>/dev/null
[ -c /dev/pts/ptmx ] && [ ! -c /dev/ptmx ] && ln -s pts/ptmx /dev/ptmx
hostname -F /etc/hostname 2>/dev/null
# Shells read it from the environment unless they are login shells.
export PS1="root@$(hostname) (in RAM)# "
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

# A shell on one console, again whenever it ends.
serve() {
    while :; do
        {
            echo
            echo "rackstrap: a shell in RAM on $(hostname). The disks are untouched. \`reboot -f\` ends it."
        } >"/dev/$1" 2>/dev/null
        # With a terminal of its own the shell has job control, and Ctrl-C does not reach this program.
        if command -v setsid >/dev/null 2>&1; then
            setsid -c sh <"/dev/$1" >"/dev/$1" 2>&1
        else
            sh <"/dev/$1" >"/dev/$1" 2>&1
        fi
        sleep 1
    done
}

[ "$ssh" = no ] || start_ssh

read -r consoles </sys/class/tty/console/active || consoles=console
for console in $consoles; do
    # tty0 is whichever screen is shown, and can be no shell's terminal.
    [ "$console" = tty0 ] && console=tty1
    [ -c "/dev/$console" ] && serve "$console" &
done

# PID 1 must not end, and takes in what others leave behind.
while :; do
    wait
    sleep 1
done
