# SPDX-License-Identifier: Apache-2.0
# Promela models of the ring and of the event count; skipped where spin(1) is missing.
dist_check_SCRIPTS += tests/model/check.sh
EXTRA_DIST += tests/model/event.pml tests/model/ring.pml
