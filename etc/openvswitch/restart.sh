#!/bin/sh
# Restarts ovs-vswitchd, for instance to upgrade it, while bridges of the kernel's datapath go on forwarding:
#
#     restart.sh [COMMAND...]       (default: systemctl restart ovs-vswitchd.service)
#
# COMMAND ends the process and starts it again; it must return once the new one runs, and must not be `ovs-ctl restart`,
# which saves flows but not the meters that they use, so that the switch refuses them all. While COMMAND runs, and until
# the flows are back, packets pass by what the kernel has; what it has no flow for waits. The controller connects after
# that, and sends what has changed meanwhile. Flows of userspace bridges are not restored: their connections are lost, and
# the controller must notice. Exit status: that of COMMAND, or 1 when flows are missing (the controller sends them).
set -eu

save=${OVS_PKGDATADIR:-/usr/share/openvswitch}/scripts/ovs-save
seconds=30
[ $# -gt 0 ] || set -- systemctl restart ovs-vswitchd.service

vsctl() { ovs-vsctl --timeout="$seconds" "$@"; }
ofctl() { ovs-ofctl -O OpenFlow15 "$@"; }
ports() { vsctl --format=csv --columns=name,ofport list interface | sort; }
resume() { vsctl --no-wait --if-exists remove open_vswitch . other_config flow-restore-wait; }

bridges=$(for kind in system '""'; do vsctl --bare --columns=name find bridge "datapath_type=$kind"; done | xargs)
[ -n "$bridges" ] || exec "$@"

folder=$(mktemp -d)
restored=yes
trap 'resume; rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM
for bridge in $bridges; do
    # Meters are separated by empty lines; each becomes one line, as add-meter reads it.
    ofctl dump-meters "$bridge" | awk -v RS= '{ sub(/.*\(xid=[^)]*\):/, ""); $1 = $1; if (/^meter=/) print }' > "$folder/$bridge.meters"
    ofctl get-frags "$bridge" > "$folder/$bridge.fragments"
done
TMPDIR=$folder "$save" save-flows $bridges > "$folder/flows.sh"
ports > "$folder/ports"

vsctl --no-wait set open_vswitch . other_config:flow-restore-wait=true
"$@"
if ports | cmp -s - "$folder/ports"; then
    for bridge in $bridges; do
        xargs -r -d '\n' -n 1 -P 8 ovs-ofctl -O OpenFlow15 add-meter "$bridge" < "$folder/$bridge.meters" || restored=no
        # Later fragments match as such from the first packet on, as the controller sets it at every connect.
        ofctl set-frags "$bridge" "$(cat "$folder/$bridge.fragments")" || restored=no
    done
    sh -e "$folder/flows.sh" || restored=no
else
    # Flows name ports by number: those of another port would take its packets for another pod's.
    restored=no
fi
if [ "$restored" = no ]; then
    echo "restart.sh: the flows could not be restored; the controller sends them" >&2
    exit 1
fi
