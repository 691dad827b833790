"""The words of `client.labels` in Chinese."""

from collections.abc import Mapping

LABELS_ZH: Mapping[str, str] = {
    "number": "#", "number_of_line": "编号", "id": "id", "time": "时间", "model": "模型", "bits": "量化",
    "alpha": "alpha", "grouping": "分组", "gptq": "GPTQ", "accuracy": "准确率", "perplexity": "困惑度",
    "status": "状态", "duration": "时长",
    "experiment": "实验", "experiments": "实验", "configuration": "配置", "model_facts": "模型", "results": "最终结果",
    "results_compared": "结果对比",
    "activation_statistics": "激活统计", "reorder_effect": "Reorder效果", "distribution": "分布",
    "user_statistics": "自定义统计", "environment": "环境", "calibration": "校准", "model_size": "模型大小",
    "artifact": "已保存的模型", "phases": "各阶段时间", "dropped": "丢失的事件", "other": "其他字段",
    "results_fp16": "未量化模型的结果", "jobs": "任务",
    "command": "命令", "error": "错误", "schema_version": "格式版本", "progress": "进度",
    "tensor": "张量", "before_clipping": "裁剪前", "after_clipping": "裁剪后", "range": "范围",
    "range_before": "裁剪前范围", "range_after": "裁剪后范围", "range_reduction": "范围缩小", "clipped": "裁剪比例",
    "measured": "实测", "scale": "scale", "sqnr": "SQNR (dB)", "before_reorder": "重排前",
    "after_reorder": "重排后", "grouping_only": "仅分组", "groups": "组数", "layers_affected": "影响层数",
    "average_range_reduction": "平均范围缩小", "enabled": "启用",
    "layer": "层", "panels": "图",
    "task": "评测任务", "metric": "指标", "value": "值", "stderr": "± 标准误", "documents": "文档数", "shots": "示例数",
    "limit": "上限", "version": "版本",
    "key": "键", "difference": "差异", "points": "个百分点", "exceeds": "超过标准误", "within": "在标准误之内",
    "no_differences": "没有差异", "absent": "(无)", "ended": "已结束", "unquantized": "未量化",
    "tags": "标签", "note": "备注", "archived": "已归档", "amended": "后来补全",
    "findings": "检查结果", "no_damage": "没有损坏", "severity": "严重程度", "kind": "种类", "file": "文件",
    "offset": "偏移", "message": "说明",
    "imported": "已导入", "already_present": "已存在", "rejected": "被拒绝",
    "job": "任务", "experiment_of_job": "实验", "state": "状态", "queue": "队列", "device": "设备",
    "submitted": "提交时间",
}  # fmt: skip

__all__ = ["LABELS_ZH"]
