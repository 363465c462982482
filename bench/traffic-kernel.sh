# Measures traffic on the kernel's datapath, in the virtual machine: `make bench-kernel`. Ratios only, since the machine's
# processor may be an emulated one. On one node, then between two by a tunnel; 4 turns of 1 s each.
set -eu
export PATH=/venv/bin:$PATH PYTHONPATH=/romana ROMANA_DATAPATH=system ROMANA_PATIENCE=10
modprobe -a openvswitch vport_vxlan
cd /romana
python -m bench.traffic 100 4 1 --ratios
python -m bench.traffic 100 4 1 --ratios --tunnel vxlan
