/* SPDX-License-Identifier: Apache-2.0 */
/* plugin.c - a library that no program is linked with: named_test has workers load it. */
#include <errno.h>
#include <pool/pool.h>
#include <string.h>

CH_API int plugin_reverse(const void *in, size_t len, struct chp_result *out);

int plugin_reverse(const void *in, size_t len, struct chp_result *out)
{
	const char *from = in;
	char *to = chp_result_space(out, len);

	if (!to)
		return ENOMEM;
	for (size_t i = 0; i < len; i++)
		to[i] = from[len - 1 - i];
	return 0;
}
