# SPDX-License-Identifier: Apache-2.0
# The house rules that a script can check; selftest.sh has seen each of them refuse something.
dist_check_SCRIPTS += \
	tests/abi/exports.sh \
	tests/abi/headers.sh \
	tests/lint/layers.sh \
	tests/lint/man.sh \
	tests/lint/pairs.sh \
	tests/lint/selftest.sh \
	tests/lint/sizes.sh \
	tests/lint/spdx.sh \
	tests/lint/words.sh
EXTRA_DIST += tests/lint/files
