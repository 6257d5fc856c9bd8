/* Files that others put where we read them: one that is a pipe or a device instead must neither block the
 * loop nor have no end. Any thread. */
#pragma once

#include "base/error.h"

/* Opens a regular file, close-on-exec, made with mode 0600 where flags hold O_CREAT. -1: it can't be had, or
 * is something else. */
int file_open(const char *path, int flags, struct error *) MUST_CHECK;
/* Is something there that is no regular file? For what a library opens itself. NULL: no. */
bool file_is_other(const char *path);
/* Is the open file the one that the path names now? fd negative: no. */
bool file_is_at(int fd, const char *path);
