# SPDX-License-Identifier: Apache-2.0
# Promela models of the ring, the event count, poll sets, synchronisation and a dictionary's windows; skipped where spin(1)
# is missing.
dist_check_SCRIPTS += tests/model/check.sh
EXTRA_DIST += tests/model/event.pml tests/model/pollset.pml tests/model/ring.pml tests/model/spsc.pml tests/model/sync.pml
EXTRA_DIST += tests/model/window.pml
