"""libvirt and QEMU: everything outside the guest."""
