# SPDX-License-Identifier: Apache-2.0
# The house rules that a script can check; selftest.sh has seen each of them refuse something.
dist_check_SCRIPTS += \
	tests/abi/exports.sh \
	tests/abi/headers.sh \
	tests/lint/layers.sh \
	tests/lint/man.sh \
	tests/lint/models.sh \
	tests/lint/pairs.sh \
	tests/lint/selftest.sh \
	tests/lint/sizes.sh \
	tests/lint/spdx.sh \
	tests/lint/words.sh
EXTRA_DIST += tests/abi/install.sh tests/lint/files
installcheck-local:
	PKG_CONFIG_PATH='$(pkgconfigdir)' LD_LIBRARY_PATH='$(libdir)' srcdir='$(srcdir)' CC='$(CC)' CXX='$(CXX)' \
		'$(srcdir)/tests/abi/install.sh'
