#!/bin/sh
# The name that the original's README uses for cifar-100.sh.
exec sh "$(dirname "$0")/cifar-100.sh" "$@"
