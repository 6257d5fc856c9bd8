#include <ares.h>
#include <curl/curl.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <uv.h>

#include "options.h"

static const struct usage usage = {
        .name = "version", .text = "Shows the version of sluice and of the libraries it runs with."
};

int cmd_version(int argc, char **argv)
{
        struct strings rest;
        int r = options_parse(&usage, argc, argv, NULL, &rest);

        free(rest.list);
        if (r >= 0)
                return r;
        (void)printf("sluice %s\nlibrdkafka %s, %s, libuv %s, c-ares %s\n", SLUICE_VERSION,
                     rd_kafka_version_str(), curl_version(), uv_version_string(), ares_version(NULL));
        return 0;
}
