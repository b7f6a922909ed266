#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int main(void)
{
	struct stat compiler;
	if (stat("/usr/bin/gcc", &compiler) != 0)
		return 1;
	printf("%s: the root of 2 is %.3f\n", GREETING, sqrt(2.0));
	return 0;
}
