# SPDX-License-Identifier: Apache-2.0
# One page per object, one .so stub per further function. Keep the lists alphabetical.
dist_man3_MANS =
dist_man7_MANS =
