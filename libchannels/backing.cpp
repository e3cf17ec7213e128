// SPDX-License-Identifier: Apache-2.0
// backing.cpp - files of shared memory: made, sealed, filled with pages, mapped.
//
// A file with a name lies in /dev/shm. One without is a memfd, sealed against shrinking and growing, so that whoever is
// handed its descriptor can map it without fear of SIGBUS. Huge pages: a memfd of hugetlbfs if the machine has some
// set aside, otherwise the kernel is asked to use them where it can (madvise); ch_segment_get_info says what came of it.
#include "config.h"
#include "backing.h"
#include "error.h"
#include <cerrno>
#include <channels/segment.h>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <initializer_list>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ch::core {

static constexpr u64 POPULATE_MAX = u64{64} << 20; // map all pages at attach up to here; larger ones as they are used

// The sum of these lines of /proc/meminfo in bytes, each as "Hugepagesize: %llu kB"; 0 if there is none.
static u64 meminfo(std::initializer_list<const char *> lines) noexcept
{
	unsigned long long kib = 0;
	char line[128];
	u64 sum = 0;

	if (FILE *f = std::fopen("/proc/meminfo", "re")) {
		while (std::fgets(line, sizeof(line), f))
			for (const char *wanted : lines)
				sum += std::sscanf(line, wanted, &kib) == 1 ? u64{kib} << 10 : 0;
		std::fclose(f);
	}
	return sum;
}

u64 huge_page_len() noexcept { return meminfo({"Hugepagesize: %llu kB"}); }

static int reserve(int fd, u64 off, u64 len) noexcept
{
	int rc;

	do // gives tmpfs pages now, so that running out of memory is an error here and no signal later
		rc = posix_fallocate(fd, static_cast<off_t>(off), static_cast<off_t>(len));
	while (rc == EINTR);
	if (rc != 0)
		return fail(rc == EFBIG ? -ENOSPC : -rc, "segment: no room for %llu bytes in /dev/shm",
			    static_cast<unsigned long long>(len));
	return 0;
}

// A file without a name knows no limit, and that of /dev/shm may be more than the machine has: the kernel would kill
// processes, perhaps ours, before it refused.
int backing_reserve(int fd, u64 off, u64 len) noexcept
{
	const u64 there = len > POPULATE_MAX ? meminfo({"MemAvailable: %llu kB", "SwapFree: %llu kB"}) : 0;

	if (there != 0 && len > there)
		return fail(-ENOSPC, "segment: %llu bytes are more than the machine has free (%llu)",
			    static_cast<unsigned long long>(len), static_cast<unsigned long long>(there));
	return reserve(fd, off, len);
}

// -EAGAIN: somebody removed it before it was locked, for an ownerless one.
static int open_named(const backing_wish &w) noexcept
{
	const int fd = shm_open(w.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct stat st;
	int rc;

	if (fd < 0)
		return -errno;
	do
		rc = flock(fd, LOCK_EX) < 0 ? -errno : 0;
	while (rc == -EINTR);
	if (rc == 0 && fstat(fd, &st) == 0 && st.st_nlink == 0)
		rc = -EAGAIN;
	else if (rc < 0)
		shm_unlink(w.path);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

static int open_nameless(u32 flags) noexcept
{
	const int fd = memfd_create("channels", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	return fd < 0 ? -errno : fd;
}

static int fill(int fd, const backing_wish &w, bool is_set_aside) noexcept
{
	if (ftruncate(fd, static_cast<off_t>(w.len)) < 0)
		return fail(-errno, "segment: cannot size it to %llu bytes", static_cast<unsigned long long>(w.len));
	int rc = is_set_aside ? reserve(fd, 0, w.reserved) : backing_reserve(fd, 0, w.reserved);
	if (rc == 0 && (w.flags & CH_GROUP) && (fchown(fd, static_cast<uid_t>(-1), w.group) < 0 || fchmod(fd, 0660) < 0))
		rc = fail(-errno, "segment: cannot give it to group %u", w.group);
	// The size is for ever; what has no memory yet may still get it.
	if (rc == 0 && !w.path && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		rc = fail(-errno, "segment: cannot seal it");
	return rc;
}

// A memfd of huge pages that were set aside; -1: there are none, or not enough.
static int try_hugetlb(const backing_wish &w, u64 huge_len, backing &out) noexcept
{
	const int fd = !w.path && huge_len && w.len % huge_len == 0 && w.reserved == w.len ? open_nameless(MFD_HUGETLB) : -1;

	if (fd < 0)
		return -1;
	if (fill(fd, w, true) < 0 || backing_map(fd, w.len, w.flags, false, &out.base) < 0) {
		close(fd);
		return -1;
	}
	out.fd = fd;
	out.page_len = huge_len;
	return 0;
}

int backing_create(const backing_wish &w, backing &out) noexcept
{
	int fd, rc;

	if ((w.flags & CH_HUGE_PAGES) && try_hugetlb(w, huge_page_len(), out) == 0)
		return 0;
	do
		fd = w.path ? open_named(w) : open_nameless(0);
	while (fd == -EAGAIN);
	if (fd < 0)
		return fd == -EEXIST ? fd : fail(fd, "segment: cannot create %s in /dev/shm", w.path ? w.path : "one");
	rc = fill(fd, w, false);
	if (rc == 0)
		rc = backing_map(fd, w.len, w.flags, w.reserved != w.len, &out.base);
	if (rc < 0) {
		if (w.path)
			shm_unlink(w.path);
		close(fd);
		return rc;
	}
	out.fd = fd;
	out.page_len = static_cast<u64>(sysconf(_SC_PAGESIZE));
	return 0;
}

int backing_map(int fd, u64 len, u32 flags, bool is_sparse, u8 **out) noexcept
{
	const bool wants_pages = (flags & CH_PREFAULT) || (len <= POPULATE_MAX && !(flags & CH_NO_PREFAULT));
	const int prot = flags & CH_READ_ONLY ? PROT_READ : PROT_READ | PROT_WRITE;
	void *p = mmap(nullptr, len, prot, MAP_SHARED | (wants_pages && !is_sparse ? MAP_POPULATE : 0), fd, 0);

	if (p == MAP_FAILED)
		return fail(errno == EACCES ? -EACCES : -ENOMEM, "segment: cannot map %llu bytes",
			    static_cast<unsigned long long>(len));
	if (flags & CH_HUGE_PAGES)
		madvise(p, len, MADV_HUGEPAGE); // a wish; get_info says what came of it
	// What has no memory yet is locked when it gets some.
	if ((flags & CH_LOCKED) && mlock2(p, len, is_sparse ? MLOCK_ONFAULT : 0) < 0) {
		const int rc = fail(-errno, "segment: cannot lock %llu bytes in memory; see ulimit -l",
				    static_cast<unsigned long long>(len));
		munmap(p, len);
		return rc;
	}
	*out = static_cast<u8 *>(p);
	return 0;
}

bool backing_is_safe(int fd) noexcept
{
	const int seals = fcntl(fd, F_GET_SEALS);
	struct stat file, shm;

	if (seals >= 0 && (seals & F_SEAL_SHRINK))
		return true;
	return fstat(fd, &file) == 0 && stat("/dev/shm", &shm) == 0 && file.st_dev == shm.st_dev;
}

u64 backing_huge_bytes(const u8 *base) noexcept
{
	unsigned long long kib, sum = 0;
	unsigned long begin, end;
	bool is_ours = false;
	char line[512], key[64];
	FILE *f = std::fopen("/proc/self/smaps", "re");

	while (f && std::fgets(line, sizeof(line), f)) {
		if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			is_ours = begin == reinterpret_cast<unsigned long>(base);
		else if (is_ours && std::sscanf(line, "%63[^:]: %llu kB", key, &kib) == 2 &&
			 (!std::strcmp(key, "ShmemPmdMapped") || !std::strcmp(key, "FilePmdMapped") ||
			  !std::strcmp(key, "Shared_Hugetlb") || !std::strcmp(key, "Private_Hugetlb")))
			sum += kib << 10;
	}
	if (f)
		std::fclose(f);
	return sum;
}

} // namespace ch::core
