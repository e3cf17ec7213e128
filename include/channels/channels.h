/* SPDX-License-Identifier: Apache-2.0 */
/* Umbrella header: everything a C program may use from libchannels. */
#ifndef CHANNELS_CHANNELS_H
#define CHANNELS_CHANNELS_H
#include <channels/base.h>
#include <channels/block.h>
#include <channels/channel.h>
#include <channels/descr.h>
#include <channels/module.h>
#include <channels/pollset.h>
#include <channels/pool.h>
#include <channels/segment.h>
#include <channels/spawn.h>
#include <channels/stream.h>
#include <channels/sync.h>
#include <channels/version.h>
#endif
