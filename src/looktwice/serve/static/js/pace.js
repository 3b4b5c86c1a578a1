// Lets a drawing happen soon, and seldom: scores may arrive faster than an eye can follow.

export class Pace {
  constructor(draw) {
    this.draw = draw;
    this.timer = 0;
  }

  /** Draw after so many milliseconds, unless that is to happen already; 0: at once, in its place. */
  soon(after) {
    if (this.timer && after) return;
    this.stop();
    this.timer = setTimeout(() => { this.timer = 0; this.draw(); }, after);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
  }
}
