#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "source/dds/inside.h"

/* Where it may be, beside the program's own folder. */
static const char *const folders[] = { "", "../lib/sluice/" };

static int load(const char *path, const struct dds_driver **out, struct error *err)
{
        /* its symbols are its own: another library's of the same name stay what they are */
        void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        const struct dds_driver *driver = module ? dlsym(module, DDS_DRIVER_SYMBOL) : NULL;

        if (!driver) {
                const char *why = dlerror();

                return error_set(err, ERROR_SYSTEM, "load the driver of DDS: %s", why ? why : path);
        }
        if (driver->version != DDS_DRIVER_VERSION)
                return error_set(err, ERROR_SYSTEM,
                                 "load the driver of DDS: %s is of another version of Sluice: install both "
                                 "together",
                                 path);
        *out = driver;
        return 0;
}

static int find(const struct dds_driver **out, struct error *err)
{
        char program[4096], path[4096 + 64];
        ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
        char *name;

        program[MAX_OF(n, (ssize_t)0)] = 0;
        name = strrchr(program, '/');
        if (!name)
                return error_errno(err, errno, "find the folder of the program");
        name[1] = 0;
        for (size_t i = 0; i < COUNT_OF(folders); i++) {
                (void)snprintf(path, sizeof(path), "%s%s" DDS_DRIVER_FILE, program, folders[i]);
                if (access(path, F_OK) == 0)
                        return load(path, out, err);
        }
        return error_set(err, ERROR_NOT_FOUND,
                         "there is no " DDS_DRIVER_FILE
                         ", the driver of DDS, beside the program in %s: install "
                         "it with the program, as `make install` and the image do",
                         program);
}

int dds_driver_load(const struct dds_driver **out, struct error *err)
{
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static const struct dds_driver *driver;
        int result = 0;

        (void)pthread_mutex_lock(&lock);
        if (!driver)
                result = find(&driver, err);
        *out = driver;
        (void)pthread_mutex_unlock(&lock);
        return result;
}
