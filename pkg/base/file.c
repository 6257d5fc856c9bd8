#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NONBLOCK means nothing to regular files; a pipe is opened without waiting for its other end, and closed
 * again. */
int file_open(const char *path, int flags, struct error *err)
{
        int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
        struct stat s = { 0 };

        if (fd < 0 && errno != ENXIO && errno != ENODEV)
                return error_errno(err, errno, "open %s", path);
        if (fd >= 0 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode))
                return fd;
        if (fd >= 0)
                (void)close(fd);
        if (fd >= 0 && S_ISDIR(s.st_mode))
                return error_errno(err, EISDIR, "open %s", path);
        return error_set(err, ERROR_INVALID, "open %s: it is no regular file", path);
}

bool file_is_other(const char *path)
{
        struct stat s;

        return path && stat(path, &s) == 0 && !S_ISREG(s.st_mode);
}

bool file_is_at(int fd, const char *path)
{
        struct stat found, own;

        return fd >= 0 && stat(path, &found) == 0 && fstat(fd, &own) == 0 && found.st_ino == own.st_ino &&
               found.st_dev == own.st_dev;
}
