"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const boxes = [...document.querySelectorAll(".plot")];
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4]];
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const percent = value => (Math.round(value * 1000) / 10) + "\u00a0%";
  const number = value => value !== 0 && Math.abs(value) < 0.0001 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  const power = value => value.toExponential(0).replace("e+", "e");
  const whole = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap(power => [1, 2, 5].map(digit => digit * 10 ** power));
  const powers = (chart, axis, low, high) => {
    const first = Math.ceil(Math.log10(low) - 1e-9), end = Math.floor(Math.log10(high) + 1e-9);
    return Array.from({length: end - first + 1}, (_, at) => 10 ** (first + at));
  };
  const last = values => values.findLast(value => value !== null);
  let drawn = [];

  function annotate(chart, plot) {
    const {ctx, bbox} = chart, pixels = uPlot.pxRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--quiet");
    ctx.lineWidth = pixels;
    ctx.font = 12 * pixels + "px system-ui, sans-serif";
    ctx.textAlign = "right";
    const label = (text, x, y) => {
      ctx.setLineDash([]);
      ctx.strokeStyle = colour("--page");
      ctx.lineWidth = 5 * pixels;
      ctx.strokeText(text, x, y);
      ctx.fillText(text, x, y);
      ctx.strokeStyle = ctx.fillStyle;
      ctx.lineWidth = pixels;
    };
    if (plot.limit !== null) {
      const y = chart.valToPos(plot.limit, "y", true);
      ctx.setLineDash([8 * pixels, 4 * pixels]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      label("bigram entropy " + number(plot.limit), bbox.left + bbox.width - 4 * pixels, y - 6 * pixels);
    }
    plot.marks.filter(mark => mark.at < last(plot.steps)).forEach((mark, line) => {
      const x = chart.valToPos(Math.max(mark.at, plot.steps[0]), "x", true);
      ctx.setLineDash([2 * pixels, 3 * pixels]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const right = x - bbox.left < ctx.measureText(mark.label).width + 8 * pixels;
      ctx.textAlign = right ? "left" : "right";
      label(mark.label, x + (right ? 4 : -4) * pixels, bbox.top + (12 + 16 * line) * pixels);
    });
    ctx.restore();
  }

  function scale(plot) {
    if (plot.log) return {distr: 3};
    if (plot.percent) return {range: [-0.02, 1.04]};
    return {range: (chart, low, high) => {
      const limit = plot.limit ?? low;
      return uPlot.rangeNum(Math.min(low, limit), Math.max(high, limit), 0.1, true);
    }};
  }

  function draw(plot, box, index) {
    const show = plot.percent ? percent : number;
    const axis = {stroke: colour("--quiet"), grid: {stroke: colour("--rule"), width: 1}, ticks: {show: false}, font: "12px system-ui, sans-serif"};
    const series = plot.series.map((one, at) => ({
      label: one.label,
      stroke: colour("--curve-" + ((plot.colour + at) % 4)),
      dash: dashes[at % 4],
      width: 2,
      spanGaps: true,
      points: {show: one.values.filter(value => value !== null).length <= 50, size: 6, fill: colour("--page")},
      value: (chart, value, _, at) => at === null ? show(last(one.values)) : value === null ? "–" : show(value),
    }));
    const steps = {label: plot.x, value: (chart, value, _, at) => at === null ? number(last(plot.steps)) : number(value)};
    return new uPlot({
      width: box.clientWidth,
      height: index === 0 ? 300 : 220,
      scales: {x: {time: false, distr: plot.log_x ? 3 : 1}, y: scale(plot)},
      series: [steps, ...series],
      axes: [{...axis, size: 28, ...(plot.log_x ? {splits: powers, values: (chart, ticks) => ticks.map(power)} : {incrs: whole})}, {...axis, size: 64, values: (chart, ticks) => ticks.map(tick => tick === null ? null : show(tick))}],
      cursor: {hover: {skip: [null, undefined]}},
      hooks: {draw: [chart => annotate(chart, plot)]},
    }, [plot.steps, ...plot.series.map(one => one.values)], box);
  }

  function drawAll() {
    drawn.forEach(chart => chart.destroy());
    drawn = plots.map((plot, index) => draw(plot, boxes[index], index));
  }

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => drawn.forEach((chart, index) => chart.setSize({width: boxes[index].clientWidth, height: chart.height})));
})();
