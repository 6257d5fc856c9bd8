/* How a file is, so that a change of it is noticed. Any thread. */
#pragma once

#include <sys/stat.h>

#include "base/base.h"

struct file_stamp {
        int64_t seconds, nanoseconds;
        uint64_t inode, size;
};

/* NULL, or a file that is not there: all zero. */
static inline struct file_stamp stamp_of(const char *path)
{
        struct stat s;

        if (!path || stat(path, &s) < 0)
                return (struct file_stamp){ 0 };
        return (struct file_stamp){ s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (uint64_t)s.st_ino,
                                    (uint64_t)s.st_size };
}

static inline bool stamps_equal(const struct file_stamp *a, const struct file_stamp *b)
{
        return a->seconds == b->seconds && a->nanoseconds == b->nanoseconds && a->inode == b->inode &&
               a->size == b->size;
}
