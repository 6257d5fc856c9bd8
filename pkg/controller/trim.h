/* What the controller keeps of each object of a kind it watches, so that a cluster of thousands takes little
 * memory. Pure. Any thread. */
#pragma once

#include <jansson.h>

void trim_trigger(json_t *);
void trim_deployment(json_t *);
void trim_pod(json_t *);
void trim_service(json_t *);
