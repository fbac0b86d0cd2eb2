// What the stream looked like: some of its frames, ever more sparsely the longer it lasts.

const MOST = 600;

export class Pictures {
  #pictures = []; // {second, address}, in order

  add(blob, second) {
    this.#pictures.push({ second, address: URL.createObjectURL(blob) });
    if (this.#pictures.length > MOST) this.#thinOut();
  }

  clear() {
    for (const { address } of this.#pictures) URL.revokeObjectURL(address);
    this.#pictures = [];
  }

  // {second, address} of the one nearest to a second, or null.
  nearest(second) {
    const away = (picture) => Math.abs(picture.second - second);
    return this.#pictures.reduce((best, picture) => (best && away(best) <= away(picture) ? best : picture), null);
  }

  // Drop the one that leaves the smallest gap.
  #thinOut() {
    const gap = (n) => this.#pictures[n + 1].second - this.#pictures[n - 1].second;
    let least = 1;
    for (let n = 2; n < this.#pictures.length - 1; n++) if (gap(n) < gap(least)) least = n;
    URL.revokeObjectURL(this.#pictures[least].address);
    this.#pictures.splice(least, 1);
  }
}
