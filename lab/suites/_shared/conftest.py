"""Fixtures of the suite, which runs in the guest. LAB_ROOTFS names an OCI image layout that boxes boot."""

from shared_home import home, images, shared_home
from traced_boxes import boxes, host_folder

__all__ = ["boxes", "home", "host_folder", "images", "shared_home"]
