/* Passes over feature maps that PyTorch's own operations would make several times.
 *
 * Compiled on the user's machine for one REAL, float or double, see build.py. passes.py has each of
 * them in PyTorch's operations, too, and says what is computed; here it is computed in one pass.
 *
 * Two layouts, both without gaps:
 *   planes  (outer, groups, chans, places)   feature maps, channel by channel
 *   rows    (places, groups, chans)          tokens, and feature maps with channels last
 * where chans are those of one group. A map of norms is (outer, groups, places), or
 * (places, groups).
 *
 * Long sums are made of partial sums, so that float32 loses little.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

typedef int64_t count;

enum { TILE = 1024, CHUNK = 32, LANES = 16 };

static inline count least(count a, count b) { return a < b ? a : b; }
static inline REAL size_of(REAL x) { return x < 0 ? -x : x; }
static inline REAL root(REAL x)
{
    return sizeof(REAL) == 4 ? (REAL)sqrtf((float)x) : (REAL)sqrt(x);
}

/* --- squares --------------------------------------------------------------------------------- */

/* sums[o, p] = sum over chans of x[o, c, p] squared, outer and groups taken together; with gains,
 * per channel, of gain x squared (one group). */
void squares_planes(const REAL *restrict x, const REAL *restrict gains, REAL *restrict sums,
                    count outer, count chans, count places, int threads)
{
    const count tiles = (places + TILE - 1) / TILE;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (count o = 0; o < outer; o++)
        for (count t = 0; t < tiles; t++) {
            const count n = least(TILE, places - t * TILE);
            const REAL *restrict from = x + o * chans * places + t * TILE;
            REAL *restrict to = sums + o * places + t * TILE;
            REAL part[TILE];
            for (count p = 0; p < n; p++) to[p] = 0;
            for (count c0 = 0; c0 < chans; c0 += CHUNK) {
                const count c1 = least(chans, c0 + CHUNK);
                for (count p = 0; p < n; p++) part[p] = 0;
                for (count c = c0; c < c1; c++) {
                    const REAL *restrict row = from + c * places;
                    const REAL weight = gains ? gains[c] * gains[c] : 1;
                    for (count p = 0; p < n; p++) part[p] += weight * (row[p] * row[p]);
                }
                for (count p = 0; p < n; p++) to[p] += part[p];
            }
        }
}

/* sums[r] = the same of x[r, c], places and groups taken together. */
void squares_rows(const REAL *restrict x, const REAL *restrict gains, REAL *restrict sums,
                  count rows, count chans, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count r = 0; r < rows; r++) {
        const REAL *restrict from = x + r * chans;
        REAL lane[LANES] = {0}, total = 0;
        count c = 0;
        if (gains) {
            for (; c + LANES <= chans; c += LANES)
                for (int j = 0; j < LANES; j++) {
                    const REAL y = gains[c + j] * from[c + j];
                    lane[j] += y * y;
                }
            for (; c < chans; c++) total += gains[c] * from[c] * (gains[c] * from[c]);
        } else {
            for (; c + LANES <= chans; c += LANES)
                for (int j = 0; j < LANES; j++) lane[j] += from[c + j] * from[c + j];
            for (; c < chans; c++) total += from[c] * from[c];
        }
        for (int j = 0; j < LANES; j++) total += lane[j];
        sums[r] = total;
    }
}

/* --- sums over the places that a filter sees ------------------------------------------------- */

typedef struct {
    count kernel, stride, dilation, pad, size, out;
} axis;

/* to[n, i, j, c] = 1 / sqrt(eps + sum over the kernel of
 * from[n, i * stride - pad + k * dilation, ..., c]), zeros outside, where `from` is squared first if
 * asked. With planes, there is one c per map; with rows, c are all channels. */
void inverse_norm(const REAL *restrict from, REAL *restrict to, count maps, count inner,
                  const axis *y, const axis *x, count squared, double eps, int threads)
{
    const count width = x->size * inner, made = x->out * inner, pad = x->pad * inner;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (count n = 0; n < maps; n++)
        for (count i = 0; i < y->out; i++) {
            REAL *row = calloc(width + 2 * pad, sizeof(REAL));
            REAL *mid = row + pad, *out = to + (n * y->out + i) * made;
            for (count k = 0; k < y->kernel; k++) {
                const count h = i * y->stride - y->pad + k * y->dilation;
                if (h < 0 || h >= y->size) continue;
                const REAL *restrict in = from + (n * y->size + h) * width;
                if (squared)
                    for (count w = 0; w < width; w++) mid[w] += in[w] * in[w];
                else
                    for (count w = 0; w < width; w++) mid[w] += in[w];
            }
            for (count j = 0; j < made; j++) out[j] = (REAL)eps;
            for (count k = 0; k < x->kernel; k++) {
                const REAL *in = row + k * x->dilation * inner;
                if (x->stride == 1)
                    for (count j = 0; j < made; j++) out[j] += in[j];
                else
                    for (count j = 0; j < x->out; j++)
                        for (count c = 0; c < inner; c++)
                            out[j * inner + c] += in[j * x->stride * inner + c];
            }
            for (count j = 0; j < made; j++) out[j] = 1 / root(out[j]);
            free(row);
        }
}

/* Every place of `from` (n, out, out, c) is added to all places that its filter saw. */
void box_back(const REAL *restrict from, REAL *restrict to, count maps, count inner,
              const axis *y, const axis *x, int threads)
{
    const count width = x->size * inner, made = x->out * inner, pad = x->pad * inner;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count n = 0; n < maps; n++) {
        REAL *row = malloc((width + 2 * pad) * sizeof(REAL));
        REAL *restrict plane = to + n * y->size * width;
        for (count p = 0; p < y->size * width; p++) plane[p] = 0;
        for (count i = 0; i < y->out; i++) {
            const REAL *restrict in = from + (n * y->out + i) * made;
            for (count w = 0; w < width + 2 * pad; w++) row[w] = 0;
            for (count k = 0; k < x->kernel; k++) {
                REAL *out = row + k * x->dilation * inner;
                if (x->stride == 1)
                    for (count j = 0; j < made; j++) out[j] += in[j];
                else
                    for (count j = 0; j < x->out; j++)
                        for (count c = 0; c < inner; c++)
                            out[j * x->stride * inner + c] += in[j * inner + c];
            }
            for (count k = 0; k < y->kernel; k++) {
                const count h = i * y->stride - y->pad + k * y->dilation;
                if (h < 0 || h >= y->size) continue;
                REAL *restrict out = plane + h * width;
                const REAL *mid = row + pad;
                for (count w = 0; w < width; w++) out[w] += mid[w];
            }
        }
        free(row);
    }
}

/* --- the dynamic scale ----------------------------------------------------------------------- */

/* u := gain u |u| length / norm, in place, and gain |u| length / norm to `scale` unless null.
 * gain and length are per channel, inverse is 1 / norm, per place and group. */
void scale_planes(REAL *restrict u, REAL *restrict scale, const REAL *restrict gain,
                  const REAL *restrict length, const REAL *restrict inverse, count outer,
                  count groups, count chans, count places, int threads)
{
    const count tiles = (places + TILE - 1) / TILE;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (count row = 0; row < outer * groups * chans; row++)
        for (count t = 0; t < tiles; t++) {
            const count n = least(TILE, places - t * TILE), og = row / chans;
            const count c = (og % groups) * chans + row % chans;
            const REAL a = gain[c], l = length[c];
            REAL *restrict x = u + row * places + t * TILE;
            const REAL *restrict r = inverse + og * places + t * TILE;
            if (scale) {
                REAL *restrict s = scale + row * places + t * TILE;
                for (count p = 0; p < n; p++) {
                    s[p] = size_of(x[p]) * l * r[p] * a;
                    x[p] *= s[p];
                }
            } else
                for (count p = 0; p < n; p++) x[p] = (x[p] * a) * (size_of(x[p]) * l * r[p]);
        }
}

void scale_rows(REAL *restrict u, REAL *restrict scale, const REAL *restrict gain,
                const REAL *restrict length, const REAL *restrict inverse, count groups,
                count chans, count places, int threads)
{
    const count all = groups * chans;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count p = 0; p < places; p++) {
        REAL *restrict x = u + p * all;
        const REAL *restrict r = inverse + p * groups;
        REAL *restrict s = scale ? scale + p * all : 0;
        if (chans == 1) {
            for (count c = 0; c < all; c++) {
                const REAL h = size_of(x[c]) * length[c] * r[c] * gain[c];
                x[c] *= h;
                if (s) s[c] = h;
            }
            continue;
        }
        for (count g = 0; g < groups; g++) {
            const REAL i = r[g];
            REAL *restrict y = x + g * chans;
            const REAL *restrict a = gain + g * chans, *l = length + g * chans;
            if (s) {
                REAL *restrict h = s + g * chans;
                for (count c = 0; c < chans; c++) {
                    h[c] = size_of(y[c]) * l[c] * i * a[c];
                    y[c] *= h[c];
                }
            } else
                for (count c = 0; c < chans; c++) y[c] = (y[c] * a[c]) * (size_of(y[c]) * l[c] * i);
        }
    }
}

/* The gradient of u from that of y = f u |u| / norm:  du = 2 sqrt(f |y| / norm) dy,
 * and the sums of dy y over chans (places) and over tiles of places (chan_sums: tiles, channels). */
void scale_back_planes(const REAL *restrict dy, const REAL *restrict y,
                       const REAL *restrict root_f, const REAL *restrict inverse,
                       REAL *restrict du, REAL *restrict place_sums, REAL *restrict chan_sums,
                       count outer, count groups, count chans, count places, int threads)
{
    const count tiles = (places + TILE - 1) / TILE;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (count og = 0; og < outer * groups; og++)
        for (count t = 0; t < tiles; t++) {
            const count n = least(TILE, places - t * TILE), o = og / groups, g = og % groups;
            const REAL *restrict r = inverse + og * places + t * TILE;
            REAL *restrict over_chans = place_sums + og * places + t * TILE;
            REAL *restrict over_places = chan_sums + ((o * tiles + t) * groups + g) * chans;
            REAL part[TILE];
            for (count p = 0; p < n; p++) over_chans[p] = 0;
            for (count c0 = 0; c0 < chans; c0 += CHUNK) {
                const count c1 = least(chans, c0 + CHUNK);
                for (count p = 0; p < n; p++) part[p] = 0;
                for (count c = c0; c < c1; c++) {
                    const count at = (og * chans + c) * places + t * TILE;
                    const REAL *restrict d = dy + at, *v = y + at;
                    REAL *restrict out = du + at;
                    const REAL two_f = 2 * root_f[g * chans + c];
                    REAL lane[LANES] = {0}, total = 0;
                    count p = 0;
                    for (; p + LANES <= n; p += LANES)
                        for (int j = 0; j < LANES; j++) {
                            const REAL dv = d[p + j] * v[p + j];
                            part[p + j] += dv;
                            lane[j] += dv;
                            out[p + j] = d[p + j] * (two_f * root(size_of(v[p + j]) * r[p + j]));
                        }
                    for (; p < n; p++) {
                        const REAL dv = d[p] * v[p];
                        part[p] += dv;
                        total += dv;
                        out[p] = d[p] * (two_f * root(size_of(v[p]) * r[p]));
                    }
                    for (int j = 0; j < LANES; j++) total += lane[j];
                    over_places[c] = total;
                }
                for (count p = 0; p < n; p++) over_chans[p] += part[p];
            }
        }
}

/* The same for rows; chan_sums: (ceil(places / CHUNK), channels). */
void scale_back_rows(const REAL *restrict dy, const REAL *restrict y,
                     const REAL *restrict root_f, const REAL *restrict inverse,
                     REAL *restrict du, REAL *restrict place_sums, REAL *restrict chan_sums,
                     count groups, count chans, count places, int threads)
{
    const count all = groups * chans, tiles = (places + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count t = 0; t < tiles; t++) {
        REAL *restrict over_places = chan_sums + t * all;
        for (count c = 0; c < all; c++) over_places[c] = 0;
        for (count p = t * CHUNK; p < least(places, (t + 1) * CHUNK); p++) {
            if (chans == 1) {
                const REAL *restrict d = dy + p * all, *restrict v = y + p * all;
                const REAL *restrict r = inverse + p * all;
                REAL *restrict out = du + p * all, *restrict sums = place_sums + p * all;
                for (count c = 0; c < all; c++) {
                    const REAL dv = d[c] * v[c];
                    sums[c] = dv;
                    over_places[c] += dv;
                    out[c] = d[c] * (2 * root_f[c] * root(size_of(v[c]) * r[c]));
                }
                continue;
            }
            for (count g = 0; g < groups; g++) {
                const count at = p * all + g * chans;
                const REAL *restrict d = dy + at, *v = y + at, *f = root_f + g * chans;
                const REAL two_root = 2 * root(inverse[p * groups + g]);
                REAL *restrict out = du + at, *sums = over_places + g * chans;
                REAL lane[LANES] = {0}, total = 0;
                count c = 0;
                for (; c + LANES <= chans; c += LANES)
                    for (int j = 0; j < LANES; j++) {
                        const REAL dv = d[c + j] * v[c + j];
                        lane[j] += dv;
                        sums[c + j] += dv;
                        out[c + j] = d[c + j] * (f[c + j] * two_root * root(size_of(v[c + j])));
                    }
                for (; c < chans; c++) {
                    const REAL dv = d[c] * v[c];
                    total += dv;
                    sums[c] += dv;
                    out[c] = d[c] * (f[c] * two_root * root(size_of(v[c])));
                }
                for (int j = 0; j < LANES; j++) total += lane[j];
                place_sums[p * groups + g] = total;
            }
        }
    }
}

/* --- sums of products ------------------------------------------------------------------------ */

/* y[o, c, p] += factor[o, p] x[o, c, p]; outer and groups taken together. */
void add_planes(REAL *restrict y, const REAL *restrict x, const REAL *restrict factor,
                count outer, count chans, count places, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count row = 0; row < outer * chans; row++) {
        const REAL *restrict f = factor + row / chans * places, *from = x + row * places;
        REAL *restrict to = y + row * places;
        for (count p = 0; p < places; p++) to[p] += f[p] * from[p];
    }
}

/* y[r, c] += factor[r] x[r, c]; places and groups taken together. */
void add_rows(REAL *restrict y, const REAL *restrict x, const REAL *restrict factor, count rows,
              count chans, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count r = 0; r < rows; r++)
        for (count c = 0; c < chans; c++) y[r * chans + c] += factor[r] * x[r * chans + c];
}

/* y = a g + b (x - k), numbers per channel. */
void affine_planes(const REAL *restrict g, const REAL *restrict x, REAL *restrict y,
                   const REAL *restrict a, const REAL *restrict b, const REAL *restrict k,
                   count outer, count chans, count places, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count row = 0; row < outer * chans; row++) {
        const count c = row % chans;
        for (count i = row * places; i < (row + 1) * places; i++)
            y[i] = a[c] * g[i] + b[c] * (x[i] - k[c]);
    }
}

void affine_rows(const REAL *restrict g, const REAL *restrict x, REAL *restrict y,
                 const REAL *restrict a, const REAL *restrict b, const REAL *restrict k,
                 count rows, count chans, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count r = 0; r < rows; r++)
        for (count c = 0; c < chans; c++) {
            const count i = r * chans + c;
            y[i] = a[c] * g[i] + b[c] * (x[i] - k[c]);
        }
}

/* --- statistics ------------------------------------------------------------------------------ */

/* Mean and biased variance of each channel: tile by tile about the tile's own mean, tiles put
 * together in double precision (Chan et al., 1979). */
void statistics_planes(const REAL *restrict x, REAL *restrict mean, REAL *restrict var,
                       count outer, count chans, count places, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count c = 0; c < chans; c++) {
        double seen = 0, middle = 0, squares = 0;
        for (count o = 0; o < outer; o++)
            for (count p0 = 0; p0 < places; p0 += TILE) {
                const count n = least(TILE, places - p0);
                const REAL *restrict from = x + (o * chans + c) * places + p0;
                REAL lane[LANES] = {0}, total = 0;
                REAL off[LANES] = {0}, rest = 0, squared[LANES] = {0}, spread = 0;
                count p = 0;
                for (; p + LANES <= n; p += LANES)
                    for (int j = 0; j < LANES; j++) lane[j] += from[p + j];
                for (; p < n; p++) total += from[p];
                for (int j = 0; j < LANES; j++) total += lane[j];
                const REAL about = total / (REAL)n;
                for (p = 0; p + LANES <= n; p += LANES)
                    for (int j = 0; j < LANES; j++) {
                        const REAL d = from[p + j] - about;
                        off[j] += d;
                        squared[j] += d * d;
                    }
                for (; p < n; p++) {
                    const REAL d = from[p] - about;
                    rest += d;
                    spread += d * d;
                }
                for (int j = 0; j < LANES; j++) {
                    rest += off[j];
                    spread += squared[j];
                }
                /* `about` is rounded; `rest` says by how much. */
                const double more = (double)rest / (double)n, all = seen + (double)n;
                const double far = (double)about + more - middle;
                squares += (double)spread - more * (double)rest;
                squares += far * far * seen * (double)n / all;
                middle += far * (double)n / all;
                seen = all;
            }
        mean[c] = (REAL)middle;
        var[c] = (REAL)(squares / seen);
    }
}

void statistics_rows(const REAL *restrict x, REAL *restrict mean, REAL *restrict var,
                     count chans, count places, int threads)
{
    enum { WIDE = 64 };
    const count blocks = (chans + WIDE - 1) / WIDE;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count b = 0; b < blocks; b++) {
        const count c0 = b * WIDE, n = least(WIDE, chans - c0);
        double middle[WIDE] = {0}, squares[WIDE] = {0};
        for (count p0 = 0; p0 < places; p0 += CHUNK) {
            const count p1 = least(places, p0 + CHUNK);
            const double rows = (double)(p1 - p0), seen = (double)p0, all = (double)p1;
            REAL total[WIDE] = {0}, rest[WIDE] = {0}, spread[WIDE] = {0}, about[WIDE];
            for (count p = p0; p < p1; p++)
                for (count c = 0; c < n; c++) total[c] += x[p * chans + c0 + c];
            for (count c = 0; c < n; c++) about[c] = total[c] / (REAL)rows;
            for (count p = p0; p < p1; p++)
                for (count c = 0; c < n; c++) {
                    const REAL d = x[p * chans + c0 + c] - about[c];
                    rest[c] += d;
                    spread[c] += d * d;
                }
            for (count c = 0; c < n; c++) {
                const double more = (double)rest[c] / rows;
                const double far = (double)about[c] + more - middle[c];
                squares[c] += (double)spread[c] - more * (double)rest[c];
                squares[c] += far * far * seen * rows / all;
                middle[c] += far * rows / all;
            }
        }
        for (count c = 0; c < n; c++) {
            mean[c0 + c] = (REAL)middle[c];
            var[c0 + c] = (REAL)(squares[c] / (double)places);
        }
    }
}

/* sums[c] = sum of g x over all places of a channel. */
void products_planes(const REAL *restrict g, const REAL *restrict x, REAL *restrict sums,
                     count outer, count chans, count places, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count c = 0; c < chans; c++) {
        double sum = 0;
        for (count o = 0; o < outer; o++)
            for (count p0 = 0; p0 < places; p0 += TILE) {
                const count n = least(TILE, places - p0), at = (o * chans + c) * places + p0;
                REAL lane[LANES] = {0};
                count p = 0;
                for (; p + LANES <= n; p += LANES)
                    for (int j = 0; j < LANES; j++) lane[j] += g[at + p + j] * x[at + p + j];
                for (; p < n; p++) lane[0] += g[at + p] * x[at + p];
                for (int j = 0; j < LANES; j++) sum += (double)lane[j];
            }
        sums[c] = (REAL)sum;
    }
}

void products_rows(const REAL *restrict g, const REAL *restrict x, REAL *restrict sums,
                   count chans, count places, int threads)
{
    enum { WIDE = 64 };
    const count blocks = (chans + WIDE - 1) / WIDE;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count b = 0; b < blocks; b++) {
        const count c0 = b * WIDE, n = least(WIDE, chans - c0);
        double sum[WIDE] = {0};
        for (count p0 = 0; p0 < places; p0 += CHUNK) {
            REAL part[WIDE] = {0};
            for (count p = p0; p < least(places, p0 + CHUNK); p++)
                for (count c = 0; c < n; c++)
                    part[c] += g[p * chans + c0 + c] * x[p * chans + c0 + c];
            for (count c = 0; c < n; c++) sum[c] += (double)part[c];
        }
        for (count c = 0; c < n; c++) sums[c0 + c] = (REAL)sum[c];
    }
}

/* y = (g w - mean of g w) scale: the gradient of a norm whose scale is a constant. A row has its own
 * mean and scale; `weights` is per channel. */
void centre_rows(const REAL *restrict g, const REAL *restrict weights,
                 const REAL *restrict scales, REAL *restrict y, count rows, count chans,
                 int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count r = 0; r < rows; r++) {
        const REAL *restrict from = g + r * chans;
        REAL *restrict to = y + r * chans, lane[LANES] = {0}, total = 0;
        count c = 0;
        for (; c + LANES <= chans; c += LANES)
            for (int j = 0; j < LANES; j++) lane[j] += from[c + j] * weights[c + j];
        for (; c < chans; c++) total += from[c] * weights[c];
        for (int j = 0; j < LANES; j++) total += lane[j];
        const REAL mean = total / (REAL)chans;
        for (c = 0; c < chans; c++) to[c] = (from[c] * weights[c] - mean) * scales[r];
    }
}

/* The same, a group of channels and all places having their own. */
void centre_planes(const REAL *restrict g, const REAL *restrict weights,
                   const REAL *restrict scales, REAL *restrict y, count outer, count groups,
                   count chans, count places, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count og = 0; og < outer * groups; og++) {
        const REAL *restrict w = weights + og % groups * chans;
        double sum = 0;
        for (count c = 0; c < chans; c++)
            for (count p0 = 0; p0 < places; p0 += TILE) {
                const count n = least(TILE, places - p0);
                const REAL *restrict from = g + (og * chans + c) * places + p0;
                REAL lane[LANES] = {0};
                count p = 0;
                for (; p + LANES <= n; p += LANES)
                    for (int j = 0; j < LANES; j++) lane[j] += from[p + j];
                for (; p < n; p++) lane[0] += from[p];
                for (int j = 0; j < LANES; j++) sum += (double)w[c] * (double)lane[j];
            }
        const REAL mean = (REAL)(sum / (double)(chans * places)), scale = scales[og];
        for (count c = 0; c < chans; c++)
            for (count p = 0; p < places; p++) {
                const count i = (og * chans + c) * places + p;
                y[i] = (g[i] * w[c] - mean) * scale;
            }
    }
}

/* Gradients of y = w (x - mean) / sqrt(var): of x, and of w in sums of CHUNK rows each. */
void layer_norm_back(const REAL *restrict dy, const REAL *restrict x, const REAL *restrict w,
                     const REAL *restrict mean, const REAL *restrict inverse, REAL *restrict dx,
                     REAL *restrict dw, count rows, count chans, int threads)
{
    const count tiles = (rows + CHUNK - 1) / CHUNK;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count t = 0; t < tiles; t++) {
        REAL *restrict sums = dw + t * chans;
        for (count c = 0; c < chans; c++) sums[c] = 0;
        for (count r = t * CHUNK; r < least(rows, (t + 1) * CHUNK); r++) {
            const REAL *restrict d = dy + r * chans, *restrict v = x + r * chans;
            REAL *restrict to = dx + r * chans;
            const REAL m = mean[r], s = inverse[r];
            REAL plain[LANES] = {0}, along[LANES] = {0}, level = 0, slope = 0;
            count c = 0;
            for (; c + LANES <= chans; c += LANES)
                for (int j = 0; j < LANES; j++) {
                    const REAL unit = (v[c + j] - m) * s, g = d[c + j] * w[c + j];
                    sums[c + j] += d[c + j] * unit;
                    plain[j] += g;
                    along[j] += g * unit;
                }
            for (; c < chans; c++) {
                const REAL unit = (v[c] - m) * s, g = d[c] * w[c];
                sums[c] += d[c] * unit;
                level += g;
                slope += g * unit;
            }
            for (int j = 0; j < LANES; j++) {
                level += plain[j];
                slope += along[j];
            }
            level /= (REAL)chans;
            slope /= (REAL)chans;
            for (c = 0; c < chans; c++)
                to[c] = (d[c] * w[c] - level - (v[c] - m) * s * slope) * s;
        }
    }
}

/* --- rotary position ------------------------------------------------------------------------- */

/* y := x, in which the first `turned` numbers of each row are turned, pair by pair, by the angle of
 * the row's place: rows are images times places, angles (places, pairs of a head), repeated. */
void turn_rows(const REAL *x, REAL *y, const REAL *restrict cosines, const REAL *restrict sines,
               count rows, count places, count width, count turned, count pairs, int threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (count r = 0; r < rows; r++) {
        const REAL *from = x + r * width;
        REAL *to = y + r * width;
        const REAL *restrict c = cosines + r % places * pairs;
        const REAL *restrict s = sines + r % places * pairs;
        for (count h = 0; h < turned; h += 2 * pairs)
            for (count i = 0; i < pairs; i++) {
                const REAL a = from[h + 2 * i], b = from[h + 2 * i + 1];
                to[h + 2 * i] = a * c[i] - b * s[i];
                to[h + 2 * i + 1] = b * c[i] + a * s[i];
            }
        if (to != from)
            for (count i = turned; i < width; i++) to[i] = from[i];
    }
}
