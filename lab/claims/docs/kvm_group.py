"""How access to KVM is given."""

from lab.claims.docs._remedy import Cure


class KvmGroup(Cure):
    order = 20
    quote = "which can be granted through group membership: sudo usermod -aG kvm $USER"
    check = "whether the remedy kvm-group, which does that, cures a cell whose user may not open /dev/kvm"
    only = "only a cell whose user may not open /dev/kvm shows it (variant kvm-denied)"
    cause = "kvm-denied"
    remedy = "kvm-group"
