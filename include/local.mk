# SPDX-License-Identifier: Apache-2.0
# Public headers. libpool's go to include/pool, libddict's to include/ddict: one block each, alphabetically.
channelsincludedir = $(includedir)/channels
dist_channelsinclude_HEADERS = \
	include/channels/archive.hpp \
	include/channels/base.h \
	include/channels/block.h \
	include/channels/callable.hpp \
	include/channels/channel.h \
	include/channels/channels.h include/channels/channels.hpp \
	include/channels/descr.h \
	include/channels/memory.hpp \
	include/channels/module.h \
	include/channels/poll_set.hpp \
	include/channels/pollset.h \
	include/channels/pool.h \
	include/channels/segment.h \
	include/channels/spawn.h \
	include/channels/stream.h \
	include/channels/stream.hpp \
	include/channels/sync.h include/channels/sync.hpp
nodist_channelsinclude_HEADERS = include/channels/version.h

poolincludedir = $(includedir)/pool
dist_poolinclude_HEADERS = \
	include/pool/batch.hpp \
	include/pool/chunk.hpp \
	include/pool/context.hpp \
	include/pool/error.hpp \
	include/pool/future.hpp \
	include/pool/lent.hpp \
	include/pool/map.hpp \
	include/pool/named.hpp \
	include/pool/options.hpp \
	include/pool/placement.hpp \
	include/pool/pool.h \
	include/pool/pool.hpp \
	include/pool/process.hpp \
	include/pool/progress.hpp \
	include/pool/queue.hpp \
	include/pool/shared.hpp \
	include/pool/task.hpp \
	include/pool/wait.hpp

ddictincludedir = $(includedir)/ddict
dist_ddictinclude_HEADERS = \
	include/ddict/codec.hpp \
	include/ddict/core.hpp \
	include/ddict/ddict.h include/ddict/ddict.hpp \
	include/ddict/visitors.hpp
