# Run as root by guests that the lab builds, in place of cloud-init, whose Python takes an emulated guest 15 to 30 s.
# lab/machine/seed.py renders it for every lane. The image has the users and the network (images/recipes/debian.sh).
set -eu
echo {{ hostname }} >/etc/hostname
hostname {{ hostname }}
printf '%s\n' '127.0.0.1 localhost' '127.0.1.1 {{ hostname }}' '::1 localhost ip6-localhost ip6-loopback' >/etc/hosts
cat >/etc/ssh/ssh_host_ed25519_key.pub <<'KEY'
{{ host_public_key }}
KEY
(umask 077; cat >/etc/ssh/ssh_host_ed25519_key) <<'KEY'
{{ host_private_key.strip() }}
KEY
for user in {{ admin_user }} {{ suite_user }}; do
    install -d -o $user -g $user -m 700 /home/$user/.ssh
    cat >/home/$user/.ssh/authorized_keys <<'KEY'
{{ client_public_key }}
KEY
done
# With SELinux, files that were made here get their labels.
! command -v restorecon || restorecon -R /etc/hostname /etc/hosts /etc/ssh /home
